"""A benchmark for tests in which any will do: 80 questions of 4 tasks; the demo world's 84 take seconds to open."""

QUESTIONS = ("evaluate.tasks=[demo_mmlu_bean,demo_mmlu_carp,demo_bbh_count_word,demo_bbh_largest]", "evaluate.limit=20")
