"""One module per firmware family, and the dialects that several of them share. Pure: no sockets, no clock."""
