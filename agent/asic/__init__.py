"""ASICs: one transport, one pure module per firmware family, one poller."""
