"""Collections: many scenes with one configuration, and the catalogue that describes each scene."""
