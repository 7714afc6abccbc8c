"""Files: paths of a checkout, the verified cache, saved rows and their stamps. Imports no torch."""
