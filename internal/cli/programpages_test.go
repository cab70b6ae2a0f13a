package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestWhatAStartReadOfItsProgramIsGivenBack(t *testing.T) {
	before := residentOfFiles(t)
	dropProgramPages()
	if after := residentOfFiles(t); after >= before {
		t.Errorf("%d KiB of files are resident, as %d before", after, before)
	}
}

// residentOfFiles is how much of files this process has mapped and resident, in KiB.
func residentOfFiles(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	kib := 0
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}
