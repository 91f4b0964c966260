"""Mail: from raw bytes to what is said of them. Pure, bounded, and never stopped by what a mail holds."""
