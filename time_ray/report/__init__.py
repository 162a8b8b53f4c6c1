"""What people read: tables, progress, plots."""
