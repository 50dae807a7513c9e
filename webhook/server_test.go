package webhook

func testServer([]string) int { return 0 }
