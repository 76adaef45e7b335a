"""One page that shows runs, pools, searches and live requests as they were recorded; it changes nothing."""
