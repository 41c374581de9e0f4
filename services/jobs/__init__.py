"""Jobs: what a job is (contract), where its truth lies (store) and who is told to look (dispatch)."""
