"""Question answering over a tenant's documents: index, search, and answers that cite their passages.

`index.index` keeps the tables of schema `rag` equal to a folder of Markdown; `search.search` ranks
chunks by keywords and vectors; `answer.ask` quotes the sentences that answer, or says that none does.
"""
