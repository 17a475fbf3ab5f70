"""The person's wallet: keys and consent records, on the person's own device."""
