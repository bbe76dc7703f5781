"""Published methods that bring sections into register: one module and one card each."""
