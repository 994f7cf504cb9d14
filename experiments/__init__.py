"""The experiments on what people fear of software tokens: keyfob, SoftHSM 2 and NSS's softoken, `make experiments`."""
