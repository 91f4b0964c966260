"""What commands share: options, questions, tables, time ranges, exit codes. No command."""
