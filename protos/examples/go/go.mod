module example.com/posegate-detect

go 1.24
