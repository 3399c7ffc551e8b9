"""From images alone to an encoder that training starts from."""
