"""The joint results of finished runs: statistics, tables, figures, one page, a W&B dashboard.

read_studies -> Study -> find -> Findings -> tables, figures, page, dashboard
"""
