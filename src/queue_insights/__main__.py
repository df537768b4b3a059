from queue_insights.cli import main

main()
