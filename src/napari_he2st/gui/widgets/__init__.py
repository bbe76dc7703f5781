"""Small widgets that several docks share."""
