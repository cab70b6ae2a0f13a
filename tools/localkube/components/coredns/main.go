// Command coredns is CoreDNS with only the plugins that a cluster's names need: fewer plugins, a much
// shorter build. It holds no configuration: localkube writes the Corefile.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func init() {
	// The order in which plugins see a query.
	dnsserver.Directives = []string{
		"bind", "health", "ready", "log", "errors", "cache", "template", "kubernetes",
	}
}

func main() { coremain.Run() }
