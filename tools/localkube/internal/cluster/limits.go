package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// raiseWatchLimits lets this machine watch more files: Debian's 128 inotify instances a user are used up
// by a few clusters. Where it isn't allowed the limits stay, and what needs more will say so.
func raiseWatchLimits() {
	for name, wanted := range map[string]int{"max_user_instances": 4096, "max_user_watches": 524288} {
		file := "/proc/sys/fs/inotify/" + name
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if has, err := strconv.Atoi(strings.TrimSpace(string(content))); err == nil && has < wanted {
			_ = os.WriteFile(file, fmt.Append(nil, wanted), 0)
		}
	}
}
