"""What tests of manifests and units share."""
