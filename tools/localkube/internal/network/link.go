package network

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// linkInside is the name of the link's end in the namespace, as a node's first interface is called.
const linkInside = "eth0"

// Join connects the namespace with the machine through a pair of interfaces, of which the machine's is
// called link, and sets up addresses and routes on both sides.
func (p Plan) Join(namespace Namespace, link string) error {
	// Made inside, so that the inner end never shows up on the machine.
	inside := []string{
		"link set lo up",
		fmt.Sprintf("link add %s type veth peer name %s", linkInside, link),
		fmt.Sprintf("addr add %s/%d dev %s", p.Node(), linkBits, linkInside),
		fmt.Sprintf("link set %s up", linkInside),
		// An empty bridge stands for the services' range: packets to a service that kube-proxy has not
		// programmed yet end there instead of going out through the link. It holds the DNS address too.
		"link add services type bridge",
		fmt.Sprintf("addr add %s/32 dev services", p.DNS()),
		"link set services up",
		fmt.Sprintf("route add %s dev services src %s", p.Services(), p.Node()),
		// Pods have routes of their own, one each; an address without a pod has none.
		fmt.Sprintf("route add unreachable %s", p.Pods()),
	}
	err := namespace.Do(func() error {
		if err := settings(map[string]string{
			"ipv4/ip_forward": "1",
			// The link carries IPv4 alone: nothing may find a way out by IPv6.
			"ipv6/conf/default/disable_ipv6": "1",
		}); err != nil {
			return err
		}
		if err := ip(inside); err != nil {
			return err
		}
		return ip([]string{fmt.Sprintf("link set %s netns %d", link, os.Getpid())})
	})
	if err != nil {
		return err
	}
	return ip([]string{
		fmt.Sprintf("addr add %s/%d dev %s", p.Host(), linkBits, link),
		fmt.Sprintf("link set %s up", link),
		fmt.Sprintf("route add %s via %s src %s", p.All(), p.Node(), p.Host()),
	})
}

// Remove deletes the machine's end of a link, and with it the other one. No link is no error.
func Remove(link string) error {
	if _, err := os.Stat("/sys/class/net/" + link); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return ip([]string{"link del " + link})
}

func ip(commands []string) error {
	command := exec.Command("ip", "-batch", "-")
	command.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("set up the network with `ip -batch` (%s): %w: %s", strings.Join(commands, "; "), err, bytes.TrimSpace(output))
	}
	return nil
}

func settings(values map[string]string) error {
	for name, value := range values {
		err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
		// A kernel without IPv6 has nothing to turn off.
		if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(name, "ipv6/") {
			continue
		}
		if err != nil {
			return fmt.Errorf("set net/%s in the network namespace: %w", name, err)
		}
	}
	return nil
}
