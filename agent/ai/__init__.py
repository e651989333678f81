"""The AI half of a site: what its work is, how it gives up power and takes it back."""
