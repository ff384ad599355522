"""Plans, the one path that settles them, and who runs next. Knows no verb and no storage."""
