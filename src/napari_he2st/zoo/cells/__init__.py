"""Published systems that predict single cells: one Python file and one card each."""
