"""Messages to domain and back; nothing else happens here."""
