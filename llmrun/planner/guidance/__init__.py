"""What is known of a problem before the search: prices, frames and shapes that point the ants to good plans."""
