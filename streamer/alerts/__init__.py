"""What happens after an alert: history, clips, and each way it is delivered."""
