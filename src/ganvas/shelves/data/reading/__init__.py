"""How files and streams of images are listed, decoded, prepared and kept."""
