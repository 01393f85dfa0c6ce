package cloudevents

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// messages gives each class the message that its occurrences carry. Classes
// below user carry a Struct, classes that are not in it carry nothing.
var messages = map[belfry.Class]protoreflect.MessageType{
	"adapter.state":         (*belfryv1.AdapterState)(nil).ProtoReflect().Type(),
	"adapter.added":         (*belfryv1.AdapterChange)(nil).ProtoReflect().Type(),
	"adapter.removed":       (*belfryv1.AdapterChange)(nil).ProtoReflect().Type(),
	"address.added":         (*belfryv1.AddressChange)(nil).ProtoReflect().Type(),
	"address.removed":       (*belfryv1.AddressChange)(nil).ProtoReflect().Type(),
	"disk.state":            (*belfryv1.DiskState)(nil).ProtoReflect().Type(),
	"dir.modify":            (*belfryv1.DirModify)(nil).ProtoReflect().Type(),
	"file.attribute":        (*belfryv1.FileAttribute)(nil).ProtoReflect().Type(),
	"file.modify":           (*belfryv1.FileModify)(nil).ProtoReflect().Type(),
	"filesystem.usage":      (*belfryv1.FilesystemUsage)(nil).ProtoReflect().Type(),
	"contact.state":         (*belfryv1.ContactStateChange)(nil).ProtoReflect().Type(),
	"link.state":            (*belfryv1.LinkStateChange)(nil).ProtoReflect().Type(),
	"node.state":            (*belfryv1.NodeState)(nil).ProtoReflect().Type(),
	"node.added":            (*belfryv1.NodeMembership)(nil).ProtoReflect().Type(),
	"node.removed":          (*belfryv1.NodeMembership)(nil).ProtoReflect().Type(),
	"node.restarted":        (*belfryv1.NodeRestarted)(nil).ProtoReflect().Type(),
	"node.was-down":         (*belfryv1.NodeWasDown)(nil).ProtoReflect().Type(),
	"node.isolated":         (*belfryv1.NodeIsolated)(nil).ProtoReflect().Type(),
	"agent.config-refused":  (*belfryv1.AgentConfigRefused)(nil).ProtoReflect().Type(),
	"security.certificate":  (*belfryv1.SecurityCertificate)(nil).ProtoReflect().Type(),
	"journal.state":         (*belfryv1.JournalState)(nil).ProtoReflect().Type(),
	"config.changed":        (*belfryv1.ConfigChanged)(nil).ProtoReflect().Type(),
	"repository.state":      (*belfryv1.RepositoryState)(nil).ProtoReflect().Type(),
	"repository.clone":      (*belfryv1.RepositoryClone)(nil).ProtoReflect().Type(),
	"repository.version":    (*belfryv1.RepositoryVersion)(nil).ProtoReflect().Type(),
	"config.lost":           (*belfryv1.ConfigLost)(nil).ProtoReflect().Type(),
	"config.unsupported":    (*belfryv1.ConfigUnsupported)(nil).ProtoReflect().Type(),
	"license.state":         (*belfryv1.LicenseState)(nil).ProtoReflect().Type(),
	"license.clock":         (*belfryv1.LicenseClock)(nil).ProtoReflect().Type(),
	"node.duplicate":        (*belfryv1.NodeDuplicate)(nil).ProtoReflect().Type(),
	"cluster.nontransitive": (*belfryv1.ClusterNontransitive)(nil).ProtoReflect().Type(),
	"pressure.cpu":          (*belfryv1.Pressure)(nil).ProtoReflect().Type(),
	"pressure.memory":       (*belfryv1.Pressure)(nil).ProtoReflect().Type(),
	"pressure.io":           (*belfryv1.Pressure)(nil).ProtoReflect().Type(),
	"cpu.wait":              (*belfryv1.CpuWait)(nil).ProtoReflect().Type(),
	"memory.wait":           (*belfryv1.MemoryWait)(nil).ProtoReflect().Type(),
	"paging.wait":           (*belfryv1.PagingWait)(nil).ProtoReflect().Type(),
	"sysctl.change":         (*belfryv1.SysctlChange)(nil).ProtoReflect().Type(),
	"timer.fire":            (*belfryv1.TimerFire)(nil).ProtoReflect().Type(),
	"process.exit":          (*belfryv1.ProcessExit)(nil).ProtoReflect().Type(),
	"unit.state":            (*belfryv1.UnitState)(nil).ProtoReflect().Type(),
	"resource.state":        (*belfryv1.ResourceState)(nil).ProtoReflect().Type(),
	"witness.state":         (*belfryv1.WitnessState)(nil).ProtoReflect().Type(),
	"witness.moved":         (*belfryv1.WitnessMoved)(nil).ProtoReflect().Type(),
	"producer.failed":       (*belfryv1.ProducerFailed)(nil).ProtoReflect().Type(),
}

// message decodes the data of one occurrence; nil if there is none.
func message(class belfry.Class, data []byte) (protoreflect.Message, error) {
	var m protoreflect.Message
	if strings.HasPrefix(string(class), "user.") {
		m = (&structpb.Struct{}).ProtoReflect()
	} else if t, ok := messages[class]; ok {
		m = t.New()
	}
	if m == nil || len(data) == 0 {
		return nil, nil
	}
	if err := proto.Unmarshal(data, m.Interface()); err != nil {
		return nil, fmt.Errorf("%w: the data of %s does not decode; it was cut, or sender and receiver differ in version", belfry.ErrUnsupported, class)
	}
	return m, nil
}

// Fields is the data of an occurrence by field name, as filter expressions
// and `-o json` know it: every field of the class's message, with its zero
// value where it is not set, but for optional ones, which are absent then.
// Integers are int, floats float64, lists []any. It is empty for a class or an
// occurrence without data. ErrUnsupported if data is not what the class
// carries.
func Fields(class belfry.Class, data []byte) (map[string]any, error) {
	m, err := message(class, data)
	if err != nil || m == nil {
		return map[string]any{}, err
	}
	if s, ok := m.Interface().(*structpb.Struct); ok {
		return s.AsMap(), nil
	}
	return fieldsOf(m), nil
}

func fieldsOf(m protoreflect.Message) map[string]any {
	fields := m.Descriptor().Fields()
	result := make(map[string]any, fields.Len())
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.HasPresence() && !m.Has(f) {
			continue
		}
		name, value := string(f.Name()), m.Get(f)
		if !f.IsList() {
			result[name] = plain(f, value)
			continue
		}
		list := make([]any, value.List().Len())
		for j := range list {
			list[j] = plain(f, value.List().Get(j))
		}
		result[name] = list
	}
	return result
}

// plain turns one value into the type that expressions and encoding/json
// handle best.
func plain(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind,
		protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return int(v.Int())
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return int(v.Uint())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return v.Float()
	case protoreflect.EnumKind:
		if d := f.Enum().Values().ByNumber(v.Enum()); d != nil {
			return string(d.Name())
		}
		return int(v.Enum())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return fieldsOf(v.Message())
	default: // bool, string, bytes
		return v.Interface()
	}
}

// Data is the reverse of [Fields] for a JSON object: what an occurrence of the
// class carries. ErrUsage if the object is not the class's, ErrUnsupported if
// the class carries nothing.
func Data(class belfry.Class, object []byte) ([]byte, error) {
	var m proto.Message
	if strings.HasPrefix(string(class), "user.") {
		m = &structpb.Struct{}
	} else if t, ok := messages[class]; ok {
		m = t.New().Interface()
	} else {
		return nil, fmt.Errorf("%w: %s carries no data; leave it out", belfry.ErrUnsupported, class)
	}
	if err := protojson.Unmarshal(object, m); err != nil {
		text := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
		return nil, fmt.Errorf("%w: no data of %s: %s", belfry.ErrUsage, class, text)
	}
	return proto.Marshal(m)
}
