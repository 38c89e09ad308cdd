"""The analysts' web application: for now the published dashboards and reports, served as they lie.

It reads only published files, so it can run beside a night; a page replaced by a night shows at reload.
"""
