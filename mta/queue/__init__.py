"""The queue manager role: index, routing, schedule, retries, bounces."""
