"""The loop that every training runs, and what it keeps: schedule, log, averages, saved states."""
