"""Networks: layers, blocks, the U-shape, the presets by name, and the file that ships them."""
