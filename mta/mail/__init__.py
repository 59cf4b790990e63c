"""Mail as text: addresses, trace headers, delivery status notifications."""
