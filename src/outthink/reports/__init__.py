"""What recordings tell: summaries, replays, tables, laws, figures."""
