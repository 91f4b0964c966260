"""What tests read of dashboards."""
