"""Published methods that group spots into tissue domains: one module and one card each."""
