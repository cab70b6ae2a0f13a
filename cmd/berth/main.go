// Command berth runs containerised work on Kubernetes namespaces that people
// were given. See internal/cli.
package main

import (
	"os"

	"github.com/berth-run/berth/internal/cli"
	"github.com/berth-run/berth/internal/kube"
)

func main() {
	kube.QuietClientGo()
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
