"""What tests share and is no fixture: one module for each thing that it stands in for or does."""
