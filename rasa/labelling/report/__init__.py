"""The page that people look at: what a labelled dataset holds, in one HTML file without network access."""

from rasa.labelling.report.write import ReportSummary, write_report

__all__ = ["ReportSummary", "write_report"]
