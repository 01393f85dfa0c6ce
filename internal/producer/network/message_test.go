package network

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/belfry-ha/belfry"
)

// Messages of Linux 6.18 on amd64 and arm64 (both little endian), cut down to
// what is read and one attribute that is not.
const (
	addressMessage = "0218800002000000" + // ifaddrmsg
		"080001000a010001" + "080002000a010001" + // IFA_ADDRESS, IFA_LOCAL
		"0a0003006e6574310000ffff" + // IFA_LABEL
		"0800f0ff01000000"
	interfaceMessage = "00000100020000004310010000000000" + // ifinfomsg
		"090003006e65743100000000" + "0800040000050000" // IFLA_IFNAME, IFLA_MTU
)

func decoded(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestMessagesAreRead(t *testing.T) {
	t.Parallel()
	a, err := parseAddress(decoded(t, addressMessage))
	if err != nil || a.prefix.String() != "10.1.0.1/24" || a.index != 2 || !a.usable() {
		t.Errorf("address %+v, %v", a, err)
	}
	i, err := parseInterface(decoded(t, interfaceMessage))
	if want := (iface{index: 2, name: "net1", flags: 0x11043, mtu: 1280}); err != nil || i != want {
		t.Errorf("interface %+v, %v, want %+v", i, err, want)
	}
	if !i.adminUp() || !i.carrier() {
		t.Errorf("%+v is up and has carrier", i)
	}
}

func TestBrokenMessagesAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "0218", addressMessage[:16], addressMessage[:len(addressMessage)-6], "0299800002000000" + addressMessage[16:]} {
		if a, err := parseAddress(decoded(t, text)); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("address %q: %+v, %v", text, a, err)
		}
	}
	for _, text := range []string{"", "0000", interfaceMessage[:len(interfaceMessage)-6]} {
		if i, err := parseInterface(decoded(t, text)); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("interface %q: %+v, %v", text, i, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	for _, seed := range []string{addressMessage, interfaceMessage, ""} {
		raw, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := parseAddress(data); err == nil && !a.prefix.IsValid() {
			t.Errorf("%+v", a)
		}
		if i, err := parseInterface(data); err == nil && i.index != indexOf(data) {
			t.Errorf("%+v", i)
		}
	})
}
