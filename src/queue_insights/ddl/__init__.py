"""What is put into the database, verified and removed: the trigger, the views, and grants."""
