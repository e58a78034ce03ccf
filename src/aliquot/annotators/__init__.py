"""Who writes the responses, beside the oracle of research: people, by files and by labelling servers, and teachers."""
