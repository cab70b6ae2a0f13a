package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dropProgramPages gives back what the start of the process read of its own
// program: most of it is touched once, by the libraries' own preparations, and a
// server stays for long. Pages that are wanted again come back from the file by
// themselves. Nothing is said of a failure: all that is lost is memory.
func dropProgramPages() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var begin, end uintptr
		var rights string
		_, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &begin, &end, &rights)
		// What may be written to is the process's own: its content would be lost.
		if err == nil && !strings.Contains(rights, "w") && strings.HasSuffix(lines.Text(), " "+program) {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, begin, end-begin, unix.MADV_DONTNEED)
		}
	}
}
