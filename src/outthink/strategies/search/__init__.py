"""Methods that grow solutions step by step under a process reward."""
