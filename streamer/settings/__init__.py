"""What a YAML file, `--set` and the command line may say."""
