"""Networks, one module a role. Plain PyTorch; nothing here reads files or knows of stages."""
