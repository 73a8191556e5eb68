"""The command line `posegate`: one file a command (or group of commands), each with its own options.

main assembles; a command's file is imported when the command is called. Shared by the commands:

    connection   the connection options of every command that calls a gateway, and its failures in words
    options      options that several commands have, each written once
    angles       the options of joint angles as messages
    images       image files sent one by one: bounded requests in flight, JSON Lines, overlays
    files        output files: whole or not at all
    formats      image or video by the first bytes
    failures     failures as one line on stderr and an exit code

May import: everything in `service`.
"""
