"""What commands share: options, confirmations, tables, time ranges, exit codes. No command."""
